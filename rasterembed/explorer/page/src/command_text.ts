/** Commands that a person can copy from the page into a terminal. */
import {store, valueOf} from './state.ts';

/** Return a word as a shell reads it. Python's `shlex.quote` does the same. */
export function quoted(word: string): string {
    return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'"'"'`)}'`;
}

/** Return a command with the root of the store of this page. Without it, the command would look into another folder. */
export function withRoot(command: string): string {
    const root = valueOf(store.value)?.root;
    return root === undefined || command.includes(' --root') ? command : `${command} --root ${quoted(root)}`;
}
