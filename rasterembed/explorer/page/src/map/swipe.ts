/** Two dates beside each other: where the divider is, and which date lies at a place. */
import {signal} from '@preact/signals';
import {swipe} from '../state.ts';
import {map} from './camera.ts';

/** Place of the divider, as a share of the map's width from the left. */
export const divider = signal(0.5);

/** Return the date that the map shows at a place, or null if it does not show two dates. */
export function dateAt(lon: number, lat: number): string | null {
    const shown = map.peek();
    const dates = swipe.peek();
    if (!shown || !dates) return null;
    // The map may show the Earth several times. The copy of the place that is nearest to the middle is the one in sight.
    const centre = shown.getCenter().lng;
    const near = lon + 360 * Math.round((centre - lon) / 360);
    const left = shown.project([near, lat]).x < divider.peek() * shown.getContainer().clientWidth;
    return left ? dates.left : dates.right;
}
