import {setTheme} from '../actions.ts';
import {store, theme, valueOf} from '../state.ts';
import type {Theme} from '../stored_theme.ts';
import {Icon} from './Icon.tsx';
import {IconButton} from './IconButton.tsx';
import './Header.css';

const NEXT: Record<Theme, {next: Theme; icon: 'system' | 'sun' | 'moon'; label: string}> = {
    system: {next: 'light', icon: 'system', label: 'Colours of the system. Switch to light'},
    light: {next: 'dark', icon: 'sun', label: 'Light colours. Switch to dark'},
    dark: {next: 'system', icon: 'moon', label: 'Dark colours. Follow the system'},
};

/** A notebook shows the page in a frame. Its address signs in, and nobody knows the token. */
const IS_FRAMED = window.self !== window.top;

/** A form, because the service answers with the sign-in page. */
function SignOut() {
    return (
        <form method="post" action="sign-out">
            <button type="submit" class="button icon quiet" aria-label="Sign out" title="Sign out">
                <Icon name="sign-out" />
            </button>
        </form>
    );
}

/** The head of the side bar: the name of the product, the store, the switch of the colours, and the way out. */
export function Header() {
    const {next, icon, label} = NEXT[theme.value];
    const content = valueOf(store.value);
    const root = content?.root;
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
            {content?.signed_in && !IS_FRAMED && <SignOut />}
        </header>
    );
}
