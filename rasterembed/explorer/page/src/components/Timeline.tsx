export function Timeline(): null {
    return null;
}
