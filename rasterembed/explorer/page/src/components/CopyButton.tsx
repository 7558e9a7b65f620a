import {useSignal} from '@preact/signals';

/** Time for which the button says that the text was copied, in milliseconds. */
const SHOWN_MS = 1600;

/** A button that copies a text to the clipboard. */
export function CopyButton({text, label}: {text: string; label: string}) {
    const done = useSignal<'copied' | 'failed' | null>(null);
    const copy = async (): Promise<void> => {
        try {
            await navigator.clipboard.writeText(text);
            done.value = 'copied';
        } catch {
            // Browsers give no clipboard to pages over plain HTTP from another machine.
            done.value = 'failed';
        }
        setTimeout(() => {
            done.value = null;
        }, SHOWN_MS);
    };
    return (
        <button type="button" class="button small" onClick={() => void copy()}>
            <span role="status">
                {done.value === 'copied' ? 'Copied' : done.value === 'failed' ? 'Select the text and copy it' : label}
            </span>
        </button>
    );
}
