/** Angles in degrees. */

export function radians(degrees: number): number {
    return (degrees * Math.PI) / 180;
}

/** Return the longitude that is the same place and lies in [-180, 180). */
export function wrapLongitude(longitude: number): number {
    return ((((longitude + 180) % 360) + 360) % 360) - 180;
}
