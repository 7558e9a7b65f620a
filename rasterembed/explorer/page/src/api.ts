/** The service's endpoints, one function each. Every answer has a type; every failure is an `ApiProblem`. */
import type {
    Answer,
    Bbox,
    ClickAnswer,
    ClickBody,
    ExportFormat,
    Footprints,
    Legend,
    ProgressOfView,
    QueryBody,
    SearchBody,
    Similarity,
    StoreAnswer,
    Tile,
    UploadedImage,
    ViewDetails,
    ViewKey,
} from './api_types.ts';
import {sentence} from './format.ts';
import {inPageWords} from './page_words.ts';

export type * from './api_types.ts';

/** A failure of a request. `message` is one line for people. */
export class ApiProblem extends Error {
    constructor(
        readonly type: string,
        readonly title: string,
        readonly status: number,
        detail: string,
    ) {
        super(detail);
    }

    /** Whether no answer came at all. */
    get isUnreachable(): boolean {
        return this.status === 0;
    }

    /** Whether the service, or the store behind it, is away. The same request may be answered later. */
    get isAway(): boolean {
        return this.isUnreachable || [502, 503, 504].includes(this.status);
    }
}

/** Return the ApiProblem that an answer which is not "ok" describes. */
async function problemOf(response: Response): Promise<ApiProblem> {
    try {
        const body: unknown = await response.json();
        if (body !== null && typeof body === 'object' && 'detail' in body) {
            const {type, title, detail} = body as {type?: unknown; title?: unknown; detail: unknown};
            const text = typeof detail === 'string' ? detail : JSON.stringify(detail);
            return new ApiProblem(
                String(type ?? 'about:blank'),
                String(title ?? 'Error'),
                response.status,
                sentence(inPageWords(text)),
            );
        }
    } catch {
        // The body is not JSON: the status must do.
    }
    return new ApiProblem('about:blank', 'Error', response.status, `The service answered with status ${response.status}.`);
}

async function send(path: string, init: RequestInit): Promise<Response> {
    let response: Response;
    try {
        response = await fetch(path, {credentials: 'same-origin', ...init});
    } catch (error) {
        if (error instanceof DOMException && error.name === 'AbortError') throw error;
        throw new ApiProblem('service-away', 'No connection', 0, 'The service does not answer. It may have stopped, or the connection is gone.');
    }
    if (response.status === 401) {
        // The sign-in has ended. The service answers the page itself with the sign-in page, which leads back here.
        location.reload();
    }
    if (!response.ok) throw await problemOf(response);
    return response;
}

async function get<T>(path: string, signal?: AbortSignal): Promise<T> {
    return (await (await send(path, signal ? {signal} : {})).json()) as T;
}

async function post<T>(path: string, body: unknown, signal?: AbortSignal): Promise<T> {
    const headers = {'Content-Type': 'application/json'};
    const init: RequestInit = {method: 'POST', headers, body: JSON.stringify(body)};
    return (await (await send(path, signal ? {...init, signal} : init)).json()) as T;
}

/** Return the path of a view's endpoint. Ids are data: each one becomes one segment of the path. */
function pathOf({kind, id}: ViewKey, rest = ''): string {
    return `api/${kind}/${encodeURIComponent(id)}${rest}`;
}

/** Parameters of a URL. Null, undefined and "" are left out. */
export type Parameters = Record<string, string | number | null | undefined>;

function withParameters(path: string, parameters: Parameters): string {
    const search = new URLSearchParams();
    for (const [name, value] of Object.entries(parameters)) {
        if (value !== null && value !== undefined && value !== '') search.set(name, String(value));
    }
    const text = search.toString();
    return text ? `${path}?${text}` : path;
}

export const getStore = (signal?: AbortSignal): Promise<StoreAnswer> => get('api/store', signal);

export const getProgress = (signal?: AbortSignal): Promise<ProgressOfView[]> => get('api/progress', signal);

export const getView = (key: ViewKey, signal?: AbortSignal): Promise<ViewDetails> => get(pathOf(key), signal);

/** Return the legend of a choice of colours, see `colourParameters`. */
export const getLegend = (key: ViewKey, choice: Parameters, signal?: AbortSignal): Promise<Legend> =>
    get(withParameters(pathOf(key, '/legend'), choice), signal);

export const getFootprints = (
    key: ViewKey,
    bbox: Bbox,
    filters: Parameters,
    signal?: AbortSignal,
): Promise<Footprints> => get(withParameters(pathOf(key, '/footprints'), {bbox: bbox.join(','), ...filters}), signal);

/** Return the tile of each scene at a place, the latest scene first. */
export const getTilesAt = (
    key: ViewKey,
    lon: number,
    lat: number,
    filters: Parameters,
    signal?: AbortSignal,
): Promise<Tile[]> => get(withParameters(pathOf(key, '/at'), {lon, lat, ...filters}), signal);

/** Return the tile `dataset_id/tile_id` with its outline. */
export const getTile = (key: ViewKey, name: string, signal?: AbortSignal): Promise<Tile> =>
    get(pathOf(key, `/tile/${name.split('/').map(encodeURIComponent).join('/')}`), signal);

export const search = (key: ViewKey, body: SearchBody, signal?: AbortSignal): Promise<Answer> =>
    post(pathOf(key, '/search'), body, signal);

/** Ask for the neighbours of the tile at a place. */
export const clickPlace = (key: ViewKey, body: ClickBody, signal?: AbortSignal): Promise<ClickAnswer> =>
    post(pathOf(key, '/click'), body, signal);

export const postSimilarity = (key: ViewKey, query: QueryBody, signal?: AbortSignal): Promise<Similarity> =>
    post(pathOf(key, '/similarity'), {query}, signal);

export async function uploadImage(key: ViewKey, file: Blob, signal?: AbortSignal): Promise<UploadedImage> {
    const headers = {'Content-Type': file.type || 'application/octet-stream'};
    const init: RequestInit = {method: 'POST', headers, body: file};
    const response = await send(pathOf(key, '/images'), signal ? {...init, signal} : init);
    return (await response.json()) as UploadedImage;
}

/** Return the exported file and the name that the service proposes for it. */
export async function exportAnswer(
    key: ViewKey,
    body: SearchBody,
    format: ExportFormat,
    signal?: AbortSignal,
): Promise<{file: Blob; name: string}> {
    const headers = {'Content-Type': 'application/json'};
    const init: RequestInit = {method: 'POST', headers, body: JSON.stringify({...body, format})};
    const response = await send(pathOf(key, '/export'), signal ? {...init, signal} : init);
    const disposition = response.headers.get('Content-Disposition') ?? '';
    const name = /filename="?([^";]+)"?/.exec(disposition)?.[1] ?? `answer.${format}`;
    return {file: await response.blob(), name};
}

/** Return the URL of the picture of a tile; `side` is in pixels. */
export function thumbnailUrl(key: ViewKey, v: string, datasetId: string, tileId: string, side = 160): string {
    const tile = `${encodeURIComponent(datasetId)}/${encodeURIComponent(tileId)}`;
    return withParameters(pathOf(key, `/thumbnails/${tile}.webp`), {side, v});
}

/** Return the URL template of the rasters' map tiles. MapLibre needs an absolute one. */
export function imageryUrl(key: ViewKey, v: string, since: string | null, until: string | null): string {
    return absolute(withParameters(pathOf(key, '/imagery/{z}/{x}/{y}.webp'), {v, since, until}));
}

/** Return the URL template of the coloured map tiles. `choice` names the colours, see `colourParameters`. */
export function tilesUrl(key: ViewKey, v: string, choice: Parameters, filters: Parameters): string {
    return absolute(withParameters(pathOf(key, '/tiles/{z}/{x}/{y}.png'), {v, ...choice, ...filters}));
}

/** Return an absolute URL that keeps the braces of a template. */
function absolute(path: string): string {
    return new URL('.', document.baseURI).href + path;
}
