export function Swipe(): null {
    return null;
}
