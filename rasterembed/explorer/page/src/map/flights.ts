/** Moves of the map to tiles. */
import type {Geometry, Position} from 'geojson';
import {radians} from './angles.ts';
import {flyTo, map} from './camera.ts';
import {visibleSize} from './visible_part.ts';

/** Part of the shorter side of the visible part of the map that a tile fills after a flight. */
const SHARE = 0.35;

/** Move the map to a tile, near enough to see what is in it. A closer zoom stays, up to a whole tile on the map. */
export function flyToTile(tile: {lon: number | null; lat: number | null}, outline: Geometry | null): void {
    const centre = centreOnMap(tile, outline);
    if (centre) flyTo(...centre, zoomFor(outline));
}

/** Return where the map shows a tile. A tile without a place on Earth has an outline at a made-up place. */
export function centreOnMap(
    tile: {lon: number | null; lat: number | null},
    outline: Geometry | null,
): [lon: number, lat: number] | null {
    if (tile.lon !== null && tile.lat !== null) return [tile.lon, tile.lat];
    if (outline?.type !== 'Polygon') return null;
    const corners = outline.coordinates[0] ?? [];
    const middle = (axis: 0 | 1): number => {
        const values = corners.map((corner) => corner[axis] ?? 0);
        return (Math.min(...values) + Math.max(...values)) / 2;
    };
    return corners.length > 0 ? [middle(0), middle(1)] : null;
}

function zoomFor(outline: Geometry | null): number | undefined {
    const shown = map.peek();
    if (!shown || outline?.type !== 'Polygon') return undefined;
    const corners = outline.coordinates[0] ?? [];
    const side = Math.max(spread(corners, 0) * Math.cos(radians(corners[0]?.[1] ?? 0)), spread(corners, 1));
    if (!(side > 0) || side > 90) return undefined;
    const {width, height} = visibleSize();
    // At zoom 0, MapLibre draws 360 degrees of the equator on 512 pixels, and it stretches by 1 / cos(latitude).
    const stretch = Math.cos(radians(Math.min(85, Math.abs(corners[0]?.[1] ?? 0))));
    const wanted = Math.log2((Math.min(width, height) * SHARE * 360 * stretch) / (512 * side));
    const whole = wanted + Math.log2(1 / SHARE);
    return Math.min(Math.max(shown.getZoom(), wanted), whole);
}

function spread(corners: Position[], axis: 0 | 1): number {
    const values = corners.map((corner) => corner[axis] ?? 0);
    return Math.max(...values) - Math.min(...values);
}
