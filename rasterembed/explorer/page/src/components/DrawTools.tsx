export function DrawTools(): null {
    return null;
}
