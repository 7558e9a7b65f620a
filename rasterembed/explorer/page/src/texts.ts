/** Numbers and places of tiles as text for people. */

/** Return a similarity with four decimals. Near tiles of one scene often differ only in the third one. */
export function similarityText(similarity: number): string {
    return similarity.toFixed(4);
}

/** Return a place in degrees, such as `60.196° N, 24.920° E`; three decimals are about 100 m. A tile without a place on Earth is named by its id. */
export function placeText(tile: {lon: number | null; lat: number | null; tile_id: string}): string {
    if (tile.lon === null || tile.lat === null) return tile.tile_id;
    return `${degreesText(tile.lat, 'N', 'S')}, ${degreesText(tile.lon, 'E', 'W')}`;
}

function degreesText(degrees: number, positive: string, negative: string): string {
    return `${Math.abs(degrees).toFixed(3)}° ${degrees < 0 ? negative : positive}`;
}

/** Return the last part of a tile's name `dataset_id/tile_id`. */
export function tileOf(name: string): string {
    return name.slice(name.indexOf('/') + 1);
}

/** Return a duration as text for people. */
export function secondsText(seconds: number): string {
    return seconds < 1 ? `${Math.round(seconds * 1000)} ms` : `${seconds.toFixed(1)} s`;
}
