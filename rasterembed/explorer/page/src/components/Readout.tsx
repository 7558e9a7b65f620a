import {mapBusy} from '../map/layers.ts';
import {openView, pointer, position} from '../state.ts';
import {positionText} from '../texts.ts';
import './Readout.css';

/** The place under the pointer, or the centre of the map, with the zoom. */
export function Readout() {
    const centre = position.value;
    const onEarth = openView.value?.on_earth ?? true;
    const [lon, lat] = pointer.value ?? [centre?.lon, centre?.lat];
    return (
        <div class="readout" aria-hidden="true">
            {mapBusy.value && <span class="readout-busy" title="The map is loading" />}
            {onEarth && lon !== undefined && lat !== undefined && <span>{positionText(lon, lat)}</span>}
            {centre && <span class="readout-zoom">z {centre.zoom.toFixed(1)}</span>}
        </div>
    );
}
