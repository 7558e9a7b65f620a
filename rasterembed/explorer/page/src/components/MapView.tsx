import {useEffect, useRef, useState} from 'preact/hooks';
import {map} from '../map/camera.ts';
import {mapBusy} from '../map/layers.ts';
import {mountMap} from '../map/map.ts';
import './MapView.css';

/** The map, or a message if this browser cannot draw it. */
export function MapView() {
    const container = useRef<HTMLDivElement>(null);
    const [isMissing, setMissing] = useState(false);
    useEffect(() => {
        if (!container.current) return;
        try {
            return mountMap(container.current);
        } catch (error) {
            // MapLibre cannot start without WebGL 2. Everything beside the map still works.
            console.warn(error);
            setMissing(true);
            return;
        }
    }, []);
    const busy = !isMissing && (map.value === null || mapBusy.value);
    return (
        <>
            <div ref={container} class="map" role="application" aria-label="Map" aria-busy={busy} />
            {isMissing && (
                <div class="map-missing notice bad" role="alert">
                    <strong>The map cannot be drawn</strong>
                    <p>This browser has no WebGL 2, or it is switched off. Switch on hardware acceleration, or take another browser.</p>
                </div>
            )}
        </>
    );
}
