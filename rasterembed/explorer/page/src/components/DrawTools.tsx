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
                        : 'Tap the corners. Tap the first one, or press Enter, to finish.'}
                    <span class="muted draw-keys"> Escape cancels; Space sets a corner at the cross.</span>
                </p>
                <button type="button" class="button small" onClick={addCorner}>
                    Corner at the cross
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
