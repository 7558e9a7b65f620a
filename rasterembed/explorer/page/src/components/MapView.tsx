import type {ComponentChildren} from 'preact';
import {useEffect, useRef, useState} from 'preact/hooks';
import {map} from '../map/camera.ts';
import {mapBusy} from '../map/layers.ts';
import {mountMap} from '../map/map.ts';
import {setVisibleFrame} from '../map/visible_part.ts';
import {SwipeMap} from './SwipeMap.tsx';
import './MapView.css';

/** The map, or a message if this browser cannot draw it. The children lie over the visible part of the map. */
export function MapView({children}: {children: ComponentChildren}) {
    const container = useRef<HTMLDivElement>(null);
    const notes = useRef<HTMLDivElement>(null);
    const [isMissing, setMissing] = useState(false);
    useEffect(() => {
        if (!container.current || !notes.current) return;
        try {
            return mountMap(container.current, notes.current);
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
            <div class="map-frame">
                <div ref={container} class="map" role="application" aria-label="Map" aria-busy={busy} />
                <SwipeMap />
            </div>
            <div ref={setVisibleFrame} class="map-visible">
                {children}
                <div ref={notes} class="map-notes" />
                {isMissing && (
                    <div class="map-missing notice bad" role="alert">
                        <strong>The map cannot be drawn</strong>
                        <p>This browser has no WebGL 2, or it is switched off. Switch on hardware acceleration, or take another browser.</p>
                    </div>
                )}
            </div>
        </>
    );
}
