import {setTheme} from '../actions.ts';
import {store, theme, valueOf} from '../state.ts';
import type {Theme} from '../state.ts';
import {IconButton} from './IconButton.tsx';
import './Header.css';

const NEXT: Record<Theme, {next: Theme; icon: 'system' | 'sun' | 'moon'; label: string}> = {
    system: {next: 'light', icon: 'system', label: 'Colours of the system. Switch to light'},
    light: {next: 'dark', icon: 'sun', label: 'Light colours. Switch to dark'},
    dark: {next: 'system', icon: 'moon', label: 'Dark colours. Follow the system'},
};

/** The head of the side bar: the name of the product, the store, and the switch of the colours. */
export function Header() {
    const {next, icon, label} = NEXT[theme.value];
    const root = valueOf(store.value)?.root;
    return (
        <header class="header">
            <svg class="mark" width="28" height="28" viewBox="0 0 28 28" aria-hidden="true">
                <rect width="28" height="28" rx="7" />
                <path d="M7 7h6v6H7zM15 7h6v6h-6zM7 15h6v6H7z" />
                <circle cx="18" cy="18" r="3" />
            </svg>
            <div class="header-text">
                <h1>Explorer</h1>
                {root && (
                    <p class="muted" title={root}>
                        {root}
                    </p>
                )}
            </div>
            <IconButton icon={icon} label={label} onClick={() => setTheme(next)} class="quiet" />
        </header>
    );
}
