/**
 * Set the theme before the page is painted for the first time. Otherwise, it would flash in the colours of the system.
 *
 * The page loads this file in its head and waits for it. The security policy allows no script inside the page.
 */
import {storedTheme} from './stored_theme.ts';

document.documentElement.dataset['theme'] = storedTheme();
