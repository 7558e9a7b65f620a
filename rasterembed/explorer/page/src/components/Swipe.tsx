import {useEffect, useRef} from 'preact/hooks';
import {divider} from '../map/swipe.ts';
import {map} from '../map/camera.ts';
import {mountSecondMap} from '../map/second_map.ts';
import {openView, swipe} from '../state.ts';
import {Icon} from './Icon.tsx';
import './Swipe.css';

/** Part of the map's width by which an arrow key moves the divider. */
const STEP = 0.02;

/** Two dates side by side: a second map covers the right part of the first one, and a divider moves between them. */
export function Swipe() {
    return swipe.value && map.value && openView.value ? <OpenSwipe /> : null;
}

function OpenSwipe() {
    const right = useRef<HTMLDivElement>(null);
    const frame = useRef<HTMLDivElement>(null);
    const main = map.value;
    const dates = swipe.value;
    useEffect(() => {
        if (!right.current || !main) return;
        return mountSecondMap(right.current, main);
    }, [main]);
    const place = `${100 * divider.value}%`;
    useEffect(() => {
        if (right.current) right.current.style.clipPath = `inset(0 0 0 ${place})`;
    }, [place]);
    const move = (event: PointerEvent): void => {
        const box = frame.current?.getBoundingClientRect();
        if (box && box.width > 0) moveTo((event.clientX - box.left) / box.width);
    };
    const onKeyDown = (event: KeyboardEvent): void => {
        const places: Record<string, number> = {
            ArrowLeft: divider.value - STEP,
            ArrowRight: divider.value + STEP,
            PageDown: divider.value - 10 * STEP,
            PageUp: divider.value + 10 * STEP,
            Home: 0,
            End: 1,
        };
        const next = places[event.key];
        if (next === undefined) return;
        event.preventDefault();
        moveTo(next);
    };
    return (
        <div ref={frame} class="swipe">
            <div ref={right} class="swipe-map" aria-hidden="true" />
            <div
                class="swipe-divider"
                role="slider"
                tabIndex={0}
                aria-label="Divider between the two dates"
                aria-orientation="horizontal"
                aria-valuemin={0}
                aria-valuemax={100}
                aria-valuenow={Math.round(100 * divider.value)}
                aria-valuetext={
                    dates
                        ? `${dates.left} on the left ${Math.round(100 * divider.value)} %, ${dates.right} on the right`
                        : undefined
                }
                ref={(element) => {
                    // At an end of the map, the whole handle stays in sight, so that it can be taken again.
                    if (element) element.style.left = `clamp(22px, ${place}, calc(100% - 22px))`;
                }}
                onPointerDown={(event) => {
                    event.currentTarget.setPointerCapture(event.pointerId);
                    event.currentTarget.focus({preventScroll: true});
                }}
                onPointerMove={(event) => {
                    if (event.currentTarget.hasPointerCapture(event.pointerId)) move(event);
                }}
                onKeyDown={onKeyDown}
            >
                <span class="swipe-date swipe-left">{dates?.left}</span>
                <span class="swipe-handle">
                    <Icon name="swipe" />
                </span>
                <span class="swipe-date swipe-right">{dates?.right}</span>
            </div>
        </div>
    );
}

function moveTo(share: number): void {
    divider.value = Math.max(0, Math.min(1, share));
}
