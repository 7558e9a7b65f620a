import assert from 'node:assert/strict';
import {test} from 'node:test';
import Point from '@mapbox/point-geometry';
import {generateMousePanHandler} from 'maplibre-gl-mouse';
import {beginWithMovement} from '../src/map/mouse_pan.ts';

/** An event of the left button. Node has no mouse events. */
const LEFT = {button: 0, buttons: 1, ctrlKey: false, preventDefault: () => undefined} as unknown as MouseEvent;

test('a press of the mouse begins no pan, and a movement does', () => {
    const pan = generateMousePanHandler({enable: true, clickTolerance: 3});
    pan.dragStart(LEFT, new Point(10, 10));
    assert.equal(pan.isActive(), true, 'MapLibre itself begins a pan with the press');
    pan.reset();
    beginWithMovement(pan);
    pan.dragStart(LEFT, new Point(10, 10));
    assert.equal(pan.isActive(), false, 'has MapLibre another name for the field _activateOnStart?');
    pan.dragMove(LEFT, new Point(30, 10));
    assert.equal(pan.isActive(), true);
});
