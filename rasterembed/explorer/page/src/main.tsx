/** Start the page. */
import {render} from 'preact';
import {closeLightbox, loadStore, loadView, showStore} from './actions.ts';
import {App} from './components/App.tsx';
import {followHeat} from './heat.ts';
import {followHistory} from './history.ts';
import {followExamples} from './known_tiles.ts';
import {followViewWhileDrawing} from './map/drawing.ts';
import {followNamedTile} from './named_tile.ts';
import {followProgress} from './progress.ts';
import {clearAnswer} from './search_actions.ts';
import {followSheet} from './sheet.ts';
import {position, viewKey} from './state.ts';
import 'maplibre-gl-css';
import './styles/theme.css';
import './styles/controls.css';

followHistory(() => {
    // The answer and the dialogs belong to the choices before. The new answer follows when the view is loaded.
    clearAnswer();
    closeLightbox();
    void loadView();
    if (!viewKey.value && !position.value) showStore();
});
const root = document.getElementById('app');
if (root) render(<App />, root);
void loadStore();
void loadView();
followProgress();
followHeat();
followExamples();
followNamedTile();
followViewWhileDrawing();
followSheet();
