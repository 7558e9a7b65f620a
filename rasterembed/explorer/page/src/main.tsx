/** Start the page. */
import {render} from 'preact';
import {loadStore, loadView, restoreTheme} from './actions.ts';
import {App} from './components/App.tsx';
import {followHeat} from './heat.ts';
import {followHistory} from './history.ts';
import {followViewWhileDrawing} from './map/drawing.ts';
import {followProgress} from './progress.ts';
import 'maplibre-gl-css';
import './styles/theme.css';
import './styles/controls.css';

restoreTheme();
followHistory(() => void loadView());
const root = document.getElementById('app');
if (root) render(<App />, root);
void loadStore();
void loadView();
followProgress();
followHeat();
followViewWhileDrawing();
