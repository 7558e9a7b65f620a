/** The choice of light or dark colours, which stays in this browser. */

export type Theme = 'system' | 'light' | 'dark';

const KEY = 'rasterembed-explorer-theme';

/** Return the theme that was chosen in this browser, or the theme of the system. */
export function storedTheme(): Theme {
    try {
        const stored = localStorage.getItem(KEY);
        return stored === 'light' || stored === 'dark' ? stored : 'system';
    } catch {
        return 'system'; // The browser allows no storage.
    }
}

export function storeTheme(value: Theme): void {
    try {
        if (value === 'system') localStorage.removeItem(KEY);
        else localStorage.setItem(KEY, value);
    } catch {
        // Without storage the choice holds until the page is closed.
    }
}
