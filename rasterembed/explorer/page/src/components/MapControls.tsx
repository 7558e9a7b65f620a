import {fitView} from '../actions.ts';
import {zoomBy} from '../map/camera.ts';
import {openView} from '../state.ts';
import {IconButton} from './IconButton.tsx';
import './MapControls.css';

/** Buttons at the corner of the map. */
export function MapControls() {
    return (
        <div class="map-controls floating" role="group" aria-label="Zoom">
            <IconButton icon="plus" label="Zoom in" onClick={() => zoomBy(1)} class="quiet" />
            <IconButton icon="minus" label="Zoom out" onClick={() => zoomBy(-1)} class="quiet" />
            <IconButton icon="fit" label="Show all of it" onClick={fitView} disabled={!openView.value?.bbox} class="quiet" />
        </div>
    );
}
