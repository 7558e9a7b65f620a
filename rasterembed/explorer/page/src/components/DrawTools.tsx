import {addCorner, cancelDrawing, finishDrawing} from '../map/drawing.ts';
import {corners} from '../search_state.ts';
import {drawing} from '../state.ts';
import './DrawTools.css';

/** What to do while an area is drawn, above the map, with buttons for people without a keyboard. */
export function DrawTools() {
    const kind = drawing.value;
    if (kind === null) return null;
    const box = kind === 'box';
    const enough = corners.value >= (box ? 2 : 3);
    return (
        <>
            <span class="draw-cross" aria-hidden="true" />
            <div class="draw-tools floating" role="toolbar" aria-label="Drawing">
                <p>
                    {box
                        ? 'Drag a box, or tap two corners.'
                        : 'Tap the corners, and the first one again.'}
                    <span class="muted draw-keys"> {box ? 'Escape cancels.' : 'Enter finishes, Escape cancels.'}</span>
                </p>
                <button type="button" class="button small" onClick={addCorner}>
                    Corner at the middle
                </button>
                {!box && (
                    <button type="button" class="button small primary" disabled={!enough} onClick={finishDrawing}>
                        Finish
                    </button>
                )}
                <button type="button" class="button small" onClick={cancelDrawing}>
                    Cancel
                </button>
            </div>
        </>
    );
}
