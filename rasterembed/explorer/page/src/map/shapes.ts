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
