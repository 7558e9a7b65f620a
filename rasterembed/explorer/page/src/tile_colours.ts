/** The choice of colours of the tiles as parameters of a URL. */
import type {Parameters} from './api.ts';
import {HEAT} from './state.ts';

/** Name of the colour that shows classes of similar tiles. */
export const CLASSES = 'cluster';
/** Smallest and largest number of classes. The service refuses others. */
export const FEWEST_CLASSES = 2;
export const MOST_CLASSES = 12;

/**
 * Return the parameters of a choice of colours. Parameters that have no effect are left out, so that browsers keep the
 * pictures of other colours.
 *
 * Args:
 *     name: Name of the colour.
 *     similarity: Name of the similarity of all tiles, if the service has computed it.
 *     classes: Number of classes.
 */
export function colourParameters(name: string, similarity: string | null, classes: number): Parameters {
    return {
        colour: name,
        classes: name === CLASSES ? classes : null,
        similarity: name === HEAT ? similarity : null,
    };
}
