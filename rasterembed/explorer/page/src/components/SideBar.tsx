import {useEffect, useRef} from 'preact/hooks';
import {sheet, viewKey} from '../state.ts';
import {Header} from './Header.tsx';
import {StorePanel} from './StorePanel.tsx';
import {ViewPanel} from './ViewPanel.tsx';
import './SideBar.css';

const LARGER = {peek: 'half', half: 'full', full: 'peek'} as const;
const ORDER = ['peek', 'half', 'full'] as const;
/** Way of the finger in pixels that counts as a pull. */
const PULL = 24;

/** The handle of the sheet on a narrow page: a pull, or a press for people who cannot pull. */
function Handle() {
    const start = useRef<number | null>(null);
    const pulled = useRef(false);
    const move = (steps: number): void => {
        const place = ORDER.indexOf(sheet.value) + steps;
        sheet.value = ORDER[Math.min(ORDER.length - 1, Math.max(0, place))] ?? 'half';
    };
    return (
        <button
            type="button"
            class="sheet-handle"
            aria-label="Size of the panel"
            aria-expanded={sheet.value !== 'peek'}
            onPointerDown={(event) => {
                start.current = event.clientY;
                pulled.current = false;
                event.currentTarget.setPointerCapture(event.pointerId);
            }}
            onPointerUp={(event) => {
                const way = start.current === null ? 0 : start.current - event.clientY;
                start.current = null;
                if (Math.abs(way) < PULL) return;
                pulled.current = true;
                move(Math.abs(way) > innerHeight / 3 ? Math.sign(way) * 2 : Math.sign(way));
            }}
            onClick={() => {
                if (!pulled.current) sheet.value = LARGER[sheet.value];
                pulled.current = false;
            }}
        >
            <span />
        </button>
    );
}

/** The side bar of a wide page, and the sheet at the bottom of a narrow one. */
export function SideBar() {
    const body = useRef<HTMLDivElement>(null);
    const name = viewKey.value ? `${viewKey.value.kind}/${viewKey.value.id}` : '';
    const before = useRef(name);
    useEffect(() => {
        const last = before.current;
        before.current = name;
        if (last === name) return;
        body.current?.scrollTo(0, 0);
        // The pressed control is gone. Without a new place for the focus, a keyboard would begin at the top again.
        const next = name ? '.view-name h2' : `[data-card="${CSS.escape(last)}"]`;
        body.current?.querySelector<HTMLElement>(next)?.focus({preventScroll: name !== ''});
    }, [name]);
    return (
        <aside class="side" data-content={viewKey.value ? 'view' : 'store'} aria-label="Store and view">
            <Handle />
            <Header />
            <div class="side-body" ref={body}>
                {viewKey.value ? <ViewPanel /> : <StorePanel />}
            </div>
        </aside>
    );
}
