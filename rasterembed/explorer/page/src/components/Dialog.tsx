import type {ComponentChildren} from 'preact';
import {useEffect, useId, useRef} from 'preact/hooks';
import {IconButton} from './IconButton.tsx';
import './Dialog.css';

interface Properties {
    title: string;
    onClose: () => void;
    onKeyDown?: (event: KeyboardEvent) => void;
    children: ComponentChildren;
    class?: string;
}

/** A modal dialog. The browser keeps the focus in it, and closes it with Escape; a click beside it closes it too. */
export function Dialog({title, onClose, onKeyDown, children, class: more = ''}: Properties) {
    const element = useRef<HTMLDialogElement>(null);
    const heading = useId();
    useEffect(() => {
        const dialog = element.current;
        const before = document.activeElement;
        dialog?.showModal();
        return () => {
            dialog?.close();
            if (before instanceof HTMLElement) before.focus();
        };
    }, []);
    return (
        <dialog
            ref={element}
            class={`dialog ${more}`}
            aria-labelledby={heading}
            onCancel={(event) => {
                event.preventDefault();
                onClose();
            }}
            onClose={() => {
                // Browsers may close a dialog without the event "cancel", for example at the second Escape.
                if (element.current) onClose();
            }}
            onKeyDown={onKeyDown}
            onClick={(event) => {
                if (event.target === element.current) onClose();
            }}
        >
            <header>
                <h2 id={heading}>{title}</h2>
                <IconButton icon="close" label="Close" onClick={onClose} class="quiet" />
            </header>
            <div class="dialog-body">{children}</div>
        </dialog>
    );
}
