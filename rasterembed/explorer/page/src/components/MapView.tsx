import {useEffect, useRef} from 'preact/hooks';
import {map} from '../map/camera.ts';
import {mapBusy} from '../map/layers.ts';
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
    const busy = map.value === null || mapBusy.value;
    return <div ref={container} class="map" role="application" aria-label="Map" aria-busy={busy} />;
}
