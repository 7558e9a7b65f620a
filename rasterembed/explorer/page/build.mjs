// Build the page: bundle src/ into ../static, compress every file, and check the size of the first view.
//
//   node build.mjs            build for the wheel and the image
//   node build.mjs --watch    build again after every change, without compression
//   node build.mjs --tests    bundle tests/ into .tests/, for node's test runner
import {mkdir, readdir, readFile, rename, rm, writeFile} from 'node:fs/promises';
import {createHash} from 'node:crypto';
import {dirname, join} from 'node:path';
import {fileURLToPath} from 'node:url';
import {promisify} from 'node:util';
import {brotliCompress, constants, gzip} from 'node:zlib';
import * as esbuild from 'esbuild';
import {feature, mesh} from 'topojson-client';

const HERE = dirname(fileURLToPath(import.meta.url));
const STATIC = join(HERE, '..', 'static');
/** Largest sum of all files that the first view loads, compressed with brotli, in bytes. */
const LARGEST_FIRST_VIEW = 400_000;

/** Options that the page and the tests share. */
const COMMON = {
    absWorkingDir: HERE,
    bundle: true,
    format: 'esm',
    // The style sheet needs light-dark(), which Chrome 123, Firefox 120 and Safari 17.5 have.
    target: ['es2022', 'chrome123', 'firefox120', 'safari17.5'],
    jsx: 'automatic',
    jsxImportSource: 'preact',
    logLevel: 'warning',
    // MapLibre declares fields in subclasses that the constructor of the base class fills. Fields of ECMAScript would
    // set them to undefined afterwards.
    tsconfigRaw: {compilerOptions: {useDefineForClassFields: false}},
    // MapLibre's sources are bundled instead of its two finished files. The page and the worker then share the code
    // that both need, which saves about 80 kB of compressed JavaScript.
    alias: {
        'maplibre-gl': './node_modules/maplibre-gl/src/index.ts',
        'maplibre-gl-worker': './node_modules/maplibre-gl/src/source/worker.ts',
        'maplibre-gl-css': './node_modules/maplibre-gl/src/css/maplibre-gl.css',
    },
    loader: {'.svg': 'dataurl', '.png': 'dataurl'},
};

const hashed = (name, bytes, ending) =>
    `${name}-${createHash('sha256').update(bytes).digest('hex').slice(0, 12).toUpperCase()}.${ending}`;

/**
 * Return a line without jumps at the antimeridian: its longitudes go on beyond 180 or -180 degrees. The
 * middle of the line lies between them.
 *
 * A ring around a pole does not end where it began. It is closed along the edge of the map.
 */
function unwrapped(line) {
    let turn = 0;
    const points = line.map(([lon, lat], place) => {
        const step = place > 0 ? lon - line[place - 1][0] : 0;
        if (step > 180) turn -= 360;
        if (step < -180) turn += 360;
        return [lon + turn, lat];
    });
    if (turn !== 0) {
        const [first, last] = [points[0], points.at(-1)];
        const edge = first[1] < 0 ? -90 : 90;
        points.push([last[0], edge], [first[0], edge], first);
    }
    // A ring that begins just east of the antimeridian would lie one turn west of a lake in it, and the lake would be land.
    const longitudes = points.map(([lon]) => lon);
    const middle = (Math.min(...longitudes) + Math.max(...longitudes)) / 2;
    const shift = -360 * Math.round(middle / 360);
    return points.map(([lon, lat]) => [lon + shift, lat]);
}

/** Return the outlines of land and the borders of countries as GeoJSON, with coordinates rounded to `digits` decimals. */
async function baseMap(resolution, digits) {
    const read = async (name) =>
        JSON.parse(await readFile(join(HERE, 'node_modules', 'world-atlas', `${name}-${resolution}.json`), 'utf8'));
    const [land, countries] = await Promise.all([read('land'), read('countries')]);
    const polygons = feature(land, land.objects.land).features.flatMap(({geometry}) => geometry.coordinates);
    const borders = mesh(countries, countries.objects.countries, (a, b) => a !== b).coordinates;
    const shapes = [
        {kind: 'land', type: 'MultiPolygon', coordinates: polygons.map((rings) => rings.map(unwrapped))},
        {kind: 'border', type: 'MultiLineString', coordinates: borders},
    ];
    const features = shapes.map(({kind, type, coordinates}) => ({
        type: 'Feature',
        properties: {kind},
        geometry: {type, coordinates},
    }));
    const round = (_, value) => (typeof value === 'number' ? Number(value.toFixed(digits)) : value);
    return JSON.stringify({type: 'FeatureCollection', features}, round);
}

/** Return the page with the names of the built files in it. */
async function indexPage({preloads, ...names}) {
    const template = await readFile(join(HERE, 'src', 'index.html'), 'utf8');
    const links = preloads.map((name) => `<link rel="modulepreload" href="assets/${name}" />`).join('\n        ');
    const values = {...names, preloads: links};
    return template.replaceAll(/\{\{(\w+)\}\}/g, (_, name) => values[name]);
}

/** Write the page and its files into `folder`; return the names of the files that the first view loads. */
async function writePage(folder, minify) {
    const assets = join(folder, 'assets');
    await mkdir(assets, {recursive: true});
    const result = await esbuild.build({
        ...COMMON,
        entryPoints: {page: 'src/main.tsx', worker: 'src/map/worker.ts'},
        outdir: assets,
        entryNames: '[name]-[hash]',
        chunkNames: '[name]-[hash]',
        assetNames: '[name]-[hash]',
        splitting: true,
        minify,
        metafile: true,
        legalComments: 'none',
        define: {'process.env.NODE_ENV': '"production"'},
    });
    // The page waits for this script before it is painted. A module would run later.
    const first = await esbuild.build({
        ...COMMON,
        entryPoints: ['src/first_paint.ts'],
        format: 'iife',
        outdir: assets,
        entryNames: '[name]-[hash]',
        minify,
        metafile: true,
    });
    const firstPaint = Object.keys(first.metafile.outputs)[0].split('/').at(-1);
    const outputs = Object.entries(result.metafile.outputs).map(([path, output]) => ({
        ...output,
        name: path.split('/').at(-1),
    }));
    const entry = (source) => outputs.find(({entryPoint}) => entryPoint === source);
    const page = entry('src/main.tsx');
    const worker = entry('src/map/worker.ts');
    const style = page.cssBundle.split('/').at(-1);
    const preloads = page.imports
        .filter(({kind}) => kind === 'import-statement')
        .map(({path}) => path.split('/').at(-1));
    const coarse = await baseMap('110m', 1);
    const land = hashed('land', coarse, 'json');
    await writeFile(join(assets, land), coarse);
    await writeFile(join(assets, 'LICENSES.txt'), await licences(result.metafile));
    const names = {script: page.name, style, firstPaint, worker: worker.name, land, preloads};
    await writeFile(join(folder, 'index.html'), await indexPage(names));
    return ['index.html', ...[page.name, firstPaint, worker.name, style, land, ...preloads].map((name) => `assets/${name}`)];
}

/** Return the licences of all packages whose code is in the bundle. */
async function licences(metafile) {
    const packages = new Set(['world-atlas']);
    for (const path of Object.keys(metafile.inputs)) {
        const match = /node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(path);
        if (match) packages.add(match[1]);
    }
    const texts = [];
    for (const name of [...packages].sort()) {
        const folder = join(HERE, 'node_modules', name);
        const {version, license} = JSON.parse(await readFile(join(folder, 'package.json'), 'utf8'));
        const file = (await readdir(folder)).find((entry) => /^licen[cs]e/i.test(entry));
        const text = file ? await readFile(join(folder, file), 'utf8') : '';
        texts.push(`${name} ${version} (${license})\n\n${text.trim()}\n`);
    }
    return texts.join(`\n${'-'.repeat(80)}\n\n`);
}

/** Write the .br and the .gz file beside every file of `folder`; return the sizes by name. */
async function compress(folder) {
    const sizes = new Map();
    const names = ['index.html', ...(await readdir(join(folder, 'assets'))).map((name) => `assets/${name}`)];
    await Promise.all(
        names.map(async (name) => {
            const bytes = await readFile(join(folder, name));
            const best = {
                [constants.BROTLI_PARAM_QUALITY]: constants.BROTLI_MAX_QUALITY,
                [constants.BROTLI_PARAM_SIZE_HINT]: bytes.length,
            };
            const [br, gz] = await Promise.all([
                promisify(brotliCompress)(bytes, {params: best}),
                promisify(gzip)(bytes, {level: constants.Z_BEST_COMPRESSION}),
            ]);
            await writeFile(join(folder, `${name}.br`), br);
            await writeFile(join(folder, `${name}.gz`), gz);
            sizes.set(name, {raw: bytes.length, br: br.length, gz: gz.length});
        }),
    );
    return sizes;
}

/** Print the sizes in kilobytes of 1,000 bytes; return the brotli size of the first view in bytes. */
function report(sizes, firstView) {
    const kilobytes = (bytes) => (bytes / 1000).toFixed(1).padStart(9);
    console.log(`${'file'.padEnd(32)}      raw     gzip   brotli  (kB)`);
    for (const [name, {raw, gz, br}] of [...sizes].sort(([, a], [, b]) => b.br - a.br)) {
        const later = firstView.includes(name) ? '' : '  not in the first view';
        console.log(`${name.padEnd(32)}${kilobytes(raw)}${kilobytes(gz)}${kilobytes(br)}${later}`);
    }
    const total = firstView.reduce((sum, name) => sum + sizes.get(name).br, 0);
    console.log(`${'first view'.padEnd(50)}${kilobytes(total)}  of ${kilobytes(LARGEST_FIRST_VIEW).trim()}`);
    return total;
}

/** Build into a new folder and switch it in, because a service may be reading the old one. */
async function build() {
    const folder = `${STATIC}-new`;
    await rm(folder, {recursive: true, force: true});
    const firstView = await writePage(folder, true);
    const total = report(await compress(folder), firstView);
    if (total > LARGEST_FIRST_VIEW) {
        throw new Error(`the first view takes ${total} bytes; at most ${LARGEST_FIRST_VIEW} are allowed`);
    }
    await rm(STATIC, {recursive: true, force: true});
    await rename(folder, STATIC);
}

async function watch() {
    const {watch: changes} = await import('node:fs');
    await rm(STATIC, {recursive: true, force: true});
    let running = Promise.resolve();
    let timer;
    const again = () => {
        running = running
            .then(() => writePage(STATIC, false))
            .then(() => console.log(`built at ${new Date().toLocaleTimeString()}`))
            .catch((error) => console.error(String(error)));
    };
    again();
    changes(join(HERE, 'src'), {recursive: true}, () => {
        clearTimeout(timer);
        timer = setTimeout(again, 100);
    });
}

async function buildTests() {
    const folder = join(HERE, '.tests');
    await rm(folder, {recursive: true, force: true});
    const names = (await readdir(join(HERE, 'tests'))).filter((name) => /\.test\.tsx?$/.test(name));
    await esbuild.build({
        ...COMMON,
        entryPoints: names.map((name) => `tests/${name}`),
        outdir: folder,
        // A test runs MapLibre's handler of the mouse, which MapLibre does not export.
        alias: {...COMMON.alias, 'maplibre-gl-mouse': './node_modules/maplibre-gl/src/ui/handler/mouse.ts'},
        platform: 'node',
        target: 'node20',
    });
}

if (process.argv.includes('--tests')) await buildTests();
else if (process.argv.includes('--watch')) await watch();
else await build();
