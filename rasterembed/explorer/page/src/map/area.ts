/** The area of a search: a box or a polygon in longitude and latitude. */
import type {Polygon, Position} from 'geojson';
import type {Bbox} from '../api.ts';
import {radians, wrapLongitude} from './angles.ts';

/** Largest number of corners of a polygon that is drawn, or that is taken from a URL. */
export const MOST_CORNERS = 200;

/** Mean radius of the Earth in kilometres. */
const RADIUS_KM = 6371.0;

/**
 * Return the box with two opposite corners.
 *
 * The map gives longitudes beyond 180 degrees when it is dragged around the Earth, so the box may have to be wrapped.
 */
export function boxOfCorners(first: Position, second: Position): Bbox {
    const [x1 = 0, y1 = 0] = first;
    const [x2 = 0, y2 = 0] = second;
    const width = Math.abs(x2 - x1);
    const south = round(Math.max(-90, Math.min(y1, y2)));
    const north = round(Math.min(90, Math.max(y1, y2)));
    if (width >= 360) return [-180, south, 180, north];
    const west = wrapLongitude(Math.min(x1, x2));
    const east = west + width;
    return [round(west), south, round(east > 180 ? east - 360 : east), north];
}

/** Return the polygon with these corners. Its first corner is moved into [-180, 180), and the others with it. */
export function polygonOfCorners(corners: readonly Position[]): Polygon {
    const first = corners[0]?.[0] ?? 0;
    const shift = wrapLongitude(first) - first;
    const ring = corners.map(([x = 0, y = 0]): Position => [round(x + shift), round(Math.max(-90, Math.min(90, y)))]);
    const start = ring[0];
    if (start !== undefined) ring.push([...start]);
    return {type: 'Polygon', coordinates: [ring]};
}

/**
 * Return the area of a polygon on a sphere, in square kilometres.
 *
 * The formula is that of Chamberlain and Duquette, "Some algorithms for polygons on a sphere", 2007.
 */
export function squareKilometres(polygon: Polygon): number {
    const ring = polygon.coordinates[0] ?? [];
    let sum = 0;
    for (let place = 0; place + 1 < ring.length; place += 1) {
        const [x1 = 0, y1 = 0] = ring[place] ?? [];
        const [x2 = 0, y2 = 0] = ring[place + 1] ?? [];
        sum += radians(x2 - x1) * (2 + Math.sin(radians(y1)) + Math.sin(radians(y2)));
    }
    return Math.abs((sum * RADIUS_KM * RADIUS_KM) / 2);
}

/** Return the size of a polygon as text for people, such as `1.2 km²`. */
export function sizeText(polygon: Polygon): string {
    const size = squareKilometres(polygon);
    return `${size.toLocaleString('en', {maximumSignificantDigits: size >= 1000 ? 6 : 3})} km²`;
}

/** Round to 6 decimals, about 0.1 m on the ground, so that the URL of the page stays short. */
function round(degrees: number): number {
    return Math.round(degrees * 1e6) / 1e6;
}
