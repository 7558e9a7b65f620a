import {useEffect} from 'preact/hooks';
import {sheet, status, untoldOutage, viewKey} from '../state.ts';
import {DrawTools} from './DrawTools.tsx';
import {ExportDialog} from './ExportDialog.tsx';
import {ImageDrop} from './ImageDrop.tsx';
import {Lightbox} from './Lightbox.tsx';
import {MapControls} from './MapControls.tsx';
import {MapView} from './MapView.tsx';
import {Readout} from './Readout.tsx';
import {SideBar} from './SideBar.tsx';
import {Strip} from './Strip.tsx';
import {Swipe} from './Swipe.tsx';
import {TileDetails} from './TileDetails.tsx';
import {Timeline} from './Timeline.tsx';
import './App.css';

/** Give the focus to the map, past all controls of the side bar. */
function focusMap(): void {
    document.querySelector<HTMLElement>('.map .maplibregl-canvas')?.focus();
}

/** The whole page: the side bar, the map with its controls, and the answer over its lower part. */
export function App() {
    const id = viewKey.value?.id;
    useEffect(() => {
        document.title = id ? `${id} · Explorer` : 'Explorer';
    }, [id]);
    return (
        <div class="app" data-sheet={sheet.value}>
            <button type="button" class="skip button" onClick={focusMap}>
                Skip to the map
            </button>
            <SideBar />
            <main class="stage" aria-label="Map and answer">
                <MapView>
                    <Swipe />
                    <DrawTools />
                    <div class="corner top-right">
                        <MapControls />
                    </div>
                    <TileDetails />
                    <div class="corner bottom-left">
                        <Readout />
                    </div>
                    {untoldOutage.value && (
                        <p class="outage" role="alert">
                            {untoldOutage.value.replace(/\.?$/, '.')} The page tries again by itself.
                        </p>
                    )}
                </MapView>
                <div class="dock">
                    <Timeline />
                    <Strip />
                </div>
            </main>
            <ImageDrop />
            <ExportDialog />
            <Lightbox />
            <p class="visually-hidden" role="status" aria-live="polite">
                {status}
            </p>
        </div>
    );
}
