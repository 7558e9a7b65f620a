export function Strip(): null {
    return null;
}
