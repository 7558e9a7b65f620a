/**
 * The part of the map that nothing covers. The timeline, the strip and the sheet of a narrow page lie over the lower part
 * of the map. The map therefore keeps its size when they come and go, and no place moves away from the pointer.
 */
import type {Map as MapLibreMap} from 'maplibre-gl';
import type {Bbox} from '../api.ts';

/** Element that lies over the visible part exactly. Both begin at the upper left corner of the map. */
let frame: HTMLElement | null = null;

export function setVisibleFrame(element: HTMLElement | null): void {
    frame = element;
}

/** Return the size of the visible part in pixels of the page. Before the map exists, it is the size of the page. */
export function visibleSize(): {width: number; height: number} {
    const {clientWidth, clientHeight} = frame ?? document.documentElement;
    return {width: clientWidth, height: clientHeight};
}

/** Return how many pixels of the map are covered at its lower end. */
export function coveredHeight(map: MapLibreMap): number {
    return Math.max(0, map.getContainer().clientHeight - visibleSize().height);
}

/** Return the middle of the visible part, in pixels from the upper left corner of the map. */
export function visibleMiddle(): [x: number, y: number] {
    const {width, height} = visibleSize();
    return [width / 2, height / 2];
}

/** Return the box that is visible. Its longitudes may go on beyond 180 or -180 degrees. */
export function visibleBox(map: MapLibreMap): Bbox {
    const {width, height} = visibleSize();
    const [northWest, southEast] = [map.unproject([0, 0]), map.unproject([width, height])];
    return [northWest.lng, southEast.lat, southEast.lng, northWest.lat];
}
