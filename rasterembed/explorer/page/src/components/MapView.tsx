import {useEffect, useRef} from 'preact/hooks';
import {mountMap} from '../map/map.ts';
import {store, valueOf} from '../state.ts';
import './MapView.css';

/** The map. It begins when the store is known, because the store names the basemap. */
export function MapView() {
    const container = useRef<HTMLDivElement>(null);
    const known = valueOf(store.value) !== null || store.value.state === 'failed';
    useEffect(() => {
        if (!known || !container.current) return;
        return mountMap(container.current, valueOf(store.peek())?.basemap ?? null);
    }, [known]);
    return <div ref={container} class="map" role="application" aria-label="Map" />;
}
