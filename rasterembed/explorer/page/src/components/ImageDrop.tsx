export function ImageDrop(): null {
    return null;
}
