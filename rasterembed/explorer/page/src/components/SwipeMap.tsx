import {useEffect, useRef} from 'preact/hooks';
import {map} from '../map/camera.ts';
import {mountSecondMap} from '../map/second_map.ts';
import {divider} from '../map/swipe.ts';
import {openView, swipe} from '../state.ts';
import './SwipeMap.css';

/** The map on the right of the divider, while two dates are compared. It covers the right part of the first map. */
export function SwipeMap() {
    return swipe.value && map.value && openView.value ? <OpenSwipeMap /> : null;
}

function OpenSwipeMap() {
    const container = useRef<HTMLDivElement>(null);
    const main = map.value;
    useEffect(() => {
        if (!container.current || !main) return;
        return mountSecondMap(container.current, main);
    }, [main]);
    const place = divider.value;
    useEffect(() => {
        if (container.current) container.current.style.clipPath = `inset(0 0 0 ${100 * place}%)`;
    }, [place]);
    return <div ref={container} class="swipe-map" aria-hidden="true" />;
}
