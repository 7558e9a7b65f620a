import type {ComponentChildren} from 'preact';
import {useId, useState} from 'preact/hooks';
import {Icon} from './Icon.tsx';
import './Section.css';

interface Properties {
    title: string;
    children: ComponentChildren;
    /** Short text at the right of the title. */
    aside?: ComponentChildren;
    open?: boolean;
}

/** A part of the side bar that can be folded. */
export function Section({title, children, aside, open: first = true}: Properties) {
    const [open, setOpen] = useState(first);
    const id = useId();
    return (
        <section class="section" aria-labelledby={`${id}-title`}>
            <h3>
                <button
                    type="button"
                    class="section-title"
                    id={`${id}-title`}
                    aria-expanded={open}
                    aria-controls={`${id}-body`}
                    onClick={() => setOpen(!open)}
                >
                    <Icon name="chevron" size={12} />
                    <span>{title}</span>
                </button>
                {aside !== undefined && <span class="section-aside">{aside}</span>}
            </h3>
            <div class="section-body" id={`${id}-body`} hidden={!open}>
                {children}
            </div>
        </section>
    );
}
