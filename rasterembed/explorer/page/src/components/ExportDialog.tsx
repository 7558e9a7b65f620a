export function ExportDialog(): null {
    return null;
}
