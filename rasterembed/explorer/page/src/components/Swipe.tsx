import {useRef} from 'preact/hooks';
import {divider} from '../map/swipe.ts';
import {map} from '../map/camera.ts';
import {openView, swipe} from '../state.ts';
import {Icon} from './Icon.tsx';
import './Swipe.css';

/** Part of the map's width by which an arrow key moves the divider. */
const STEP = 0.02;

/** The divider between two dates that lie side by side. The map on its right is `SwipeMap`. */
export function Swipe() {
    return swipe.value && map.value && openView.value ? <Divider /> : null;
}

function Divider() {
    const frame = useRef<HTMLDivElement>(null);
    const dates = swipe.value;
    const place = `${100 * divider.value}%`;
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
