/**
 * Turn names in the library's texts into the words of the page.
 *
 * The library names a parameter in backticks, as `pick` or `pick=latest`, and a command as `rasterembed qa ID`. A person
 * at the page knows the controls of the page. A setting without a control keeps its name, and is not spelled as an option.
 */
import {withRoot} from './command_text.ts';

/** Labels of the controls, by the parameter that they set. */
const CONTROLS: Record<string, string> = {
    bbox: 'Area',
    polygon: 'Area',
    within: 'Area',
    since: 'Dates',
    until: 'Dates',
    min_valid_fraction: 'Valid pixels',
    max_cloud_cover: 'Clouds',
    pick: 'Where several scenes show a tile',
    k: 'Tiles',
    classes: 'Number of classes',
    like: 'More like this',
    unlike: 'Less like this',
    tile: 'Tile id',
    lonlat: 'Latitude, longitude',
    image: 'Image file',
};

/** Parameters whose errors quote the wrong value, so they need no label before them. */
const QUOTED = new Set(['tile', 'lonlat', 'image']);

/** Texts of the choices of the filter for scenes, by the value of the parameter. */
export const PICK_TEXTS = {
    all: 'Every scene',
    latest: 'Only the latest scene of each tile',
    clearest: 'Only the clearest scene of each tile',
} as const;

const COMMAND = /`(rasterembed [^`]+)`/g;

/** Path of a view in the API, such as `/api/collections/survey`. */
const VIEW_PATH = /`\/api\/((?:datasets|collections)\/[\w.-]+)`/g;

const PARAMETER = /`([a-z][a-z0-9_]*)(?:=([^`]+))?`/g;

/** Where a wrong value is in a request, such as `body.where.since: `. Its last part is the name of the parameter. */
const PLACE = /^(?:body|query|path)((?:\.\w+)*): /;

function parameterInWords(name: string, value: string | undefined): string {
    if (name === 'pick' && value !== undefined && Object.hasOwn(PICK_TEXTS, value)) {
        return `“${PICK_TEXTS[value as keyof typeof PICK_TEXTS]}”`;
    }
    const label = Object.hasOwn(CONTROLS, name) ? CONTROLS[name] : undefined;
    if (label !== undefined) return value === undefined ? `“${label}”` : `“${label}” with ${value}`;
    // It is a setting of the run that embeds, which the page does not start.
    return `the setting “${value === undefined ? name : `${name}=${value}`}”`;
}

/** Return a text of the library, in which parameters are named as the page or a command names them. */
export function inPageWords(text: string): string {
    return text
        .replace(PLACE, (_, path: string) => {
            const label = path
                .split('.')
                .map((part) => (Object.hasOwn(CONTROLS, part) && !QUOTED.has(part) ? CONTROLS[part] : undefined))
                .findLast((found) => found !== undefined);
            return label === undefined ? '' : `${label}: `;
        })
        .replace(COMMAND, (_, command: string) => `“${withRoot(command)}”`)
        .replace(VIEW_PATH, (_, view: string) => `“?view=${view}” in the address of this page`)
        .replace(PARAMETER, (_, name: string, value: string | undefined) => parameterInWords(name, value));
}
