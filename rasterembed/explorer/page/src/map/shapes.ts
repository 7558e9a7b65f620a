/** Boxes as GeoJSON, and the zoom at which the map shows a box. */
import type {Point, Polygon} from 'geojson';
import type {Bbox} from '../api.ts';
import {radians} from './angles.ts';

/** Return the outline of a box. A box that crosses the antimeridian goes beyond 180 degrees, as MapLibre draws it. */
export function boxPolygon([west, south, edge, north]: Bbox): Polygon {
    const east = west > edge ? edge + 360 : edge;
    return {
        type: 'Polygon',
        coordinates: [[[west, south], [east, south], [east, north], [west, north], [west, south]]],
    };
}

/** Return the centre of a box. */
export function boxCentre([west, south, edge, north]: Bbox): Point {
    const east = west > edge ? edge + 360 : edge;
    return {type: 'Point', coordinates: [(west + east) / 2, (south + north) / 2]};
}

/** Side of a box in degrees from which its outline is large enough on a map of the whole Earth. */
const LARGE_SIDE = 8;

/** Return the centre of a box whose outline is too small to be seen on a map of the whole Earth; null for a larger one. */
export function centreOfSmall(box: Bbox): Point | null {
    return Math.max(widthOf(box), box[3] - box[1]) < LARGE_SIDE ? boxCentre(box) : null;
}

/** Return the area of a box in square degrees, to compare boxes. */
export function boxArea(box: Bbox): number {
    return widthOf(box) * (box[3] - box[1]);
}

function widthOf([west, , edge]: Bbox): number {
    return west > edge ? edge + 360 - west : edge - west;
}

/**
 * Return the narrowest box that contains all boxes, or null if none is given. The widest part of the globe without a box
 * stays outside, so the result may cross the antimeridian.
 */
export function coveringBox(boxes: readonly Bbox[]): Bbox | null {
    if (boxes.length === 0) return null;
    const south = Math.min(...boxes.map((box) => box[1]));
    const north = Math.max(...boxes.map((box) => box[3]));
    // Each box becomes a stretch of longitude. A box that crosses the antimeridian ends beyond 180 degrees.
    const stretches = boxes
        .map(([west, , edge]): [number, number] => [west, west > edge ? edge + 360 : edge])
        .sort((one, other) => one[0] - other[0]);
    const first = stretches[0]?.[0] ?? -180;
    let reach = first;
    let gap = {width: 0, west: first, east: first};
    // The first box comes again after a turn, so the gap behind the last box counts too.
    for (const [west, east] of [...stretches, [first + 360, first + 360] as const]) {
        if (west - reach > gap.width) gap = {width: west - reach, west: reach, east: west};
        reach = Math.max(reach, east);
    }
    if (gap.width === 0) return [-180, south, 180, north];
    // The box begins where the gap ends.
    return [turned(gap.east), south, turned(gap.west), north];
}

/** Return a longitude of at most 180 degrees. */
function turned(longitude: number): number {
    return longitude > 180 ? longitude - 360 : longitude;
}

/** Side of the square of Web Mercator at zoom 0, in pixels of the page. */
const WORLD_PIXELS = 512;

/** Return the height of a latitude in Web Mercator, from 0 at the northern end of the map to 1 at the southern end. */
function mercatorY(lat: number): number {
    const angle = radians(Math.min(85.0511, Math.max(-85.0511, lat)));
    return 0.5 - Math.log(Math.tan(Math.PI / 4 + angle / 2)) / (2 * Math.PI);
}

/**
 * Return the zoom at which a box fills an area of the page.
 *
 * Args:
 *     width, height: Size of the area in pixels.
 */
export function fittingZoom([west, south, edge, north]: Bbox, width: number, height: number): number {
    const east = west > edge ? edge + 360 : edge;
    const across = (width / WORLD_PIXELS / Math.max(east - west, 1e-9)) * 360;
    const down = height / WORLD_PIXELS / Math.max(mercatorY(south) - mercatorY(north), 1e-12);
    return Math.max(0, Math.log2(Math.min(across, down)));
}
