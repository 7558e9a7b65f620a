/** Boxes and positions as GeoJSON. */
import type {Point, Polygon} from 'geojson';
import type {Bbox} from '../api.ts';

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

/** Return a position in degrees as people read it, such as "47.12345° N, 8.54321° E". */
export function positionText(lon: number, lat: number, digits = 5): string {
    const wrapped = ((((lon + 180) % 360) + 360) % 360) - 180;
    const half = (value: number, positive: string, negative: string): string =>
        `${Math.abs(value).toFixed(digits)}° ${value < 0 ? negative : positive}`;
    return `${half(lat, 'N', 'S')}, ${half(wrapped, 'E', 'W')}`;
}

/** Side of the square of Web Mercator at zoom 0, in pixels of the page. */
const WORLD_PIXELS = 512;

/** Return the height of a latitude in Web Mercator, from 0 at the northern end of the map to 1 at the southern end. */
function mercatorY(lat: number): number {
    const angle = (Math.min(85.0511, Math.max(-85.0511, lat)) * Math.PI) / 180;
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
