export function SearchPanel(): null {
    return null;
}
