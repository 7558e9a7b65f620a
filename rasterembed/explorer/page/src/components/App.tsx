import {status} from '../state.ts';
import {DrawTools} from './DrawTools.tsx';
import {ExportDialog} from './ExportDialog.tsx';
import {ImageDrop} from './ImageDrop.tsx';
import {MapView} from './MapView.tsx';
import {SearchPanel} from './SearchPanel.tsx';
import {Strip} from './Strip.tsx';
import {Swipe} from './Swipe.tsx';
import {Timeline} from './Timeline.tsx';
import './App.css';

/** The whole page: a side bar, the map with its controls, and the strip of hits below. */
export function App() {
    return (
        <>
            <main class="stage">
                <MapView />
                <Swipe />
                <DrawTools />
                <Timeline />
                <Strip />
            </main>
            <SearchPanel />
            <ImageDrop />
            <ExportDialog />
            <p class="visually-hidden" role="status" aria-live="polite">
                {status}
            </p>
        </>
    );
}
