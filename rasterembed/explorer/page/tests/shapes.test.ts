import assert from 'node:assert/strict';
import {test} from 'node:test';
import {boxCentre, boxPolygon, fittingZoom} from '../src/map/shapes.ts';
import {positionText} from '../src/texts.ts';

test('the whole Earth fills the square of zoom 0, and half of it that of zoom 1', () => {
    assert.equal(fittingZoom([-180, -85.0511, 180, 85.0511], 512, 512), 0);
    assert.ok(Math.abs(fittingZoom([-90, -1, 90, 1], 512, 512) - 1) < 1e-9);
});

test('a box across the antimeridian is as wide as its own side, and is drawn beyond 180 degrees', () => {
    assert.equal(fittingZoom([179, -1, -179, 1], 800, 800), fittingZoom([9, -1, 11, 1], 800, 800));
    assert.deepEqual(boxCentre([179, -1, -179, 1]), {type: 'Point', coordinates: [180, 0]});
    assert.deepEqual(
        boxPolygon([179, -1, -179, 1]).coordinates[0]?.map(([lon]) => lon),
        [179, 181, 181, 179, 179],
    );
});

test('positions are texts with their half of the Earth', () => {
    assert.equal(positionText(8.5, -47.25, 2), '47.25° S, 8.50° E');
    assert.equal(positionText(181, 0, 1), '0.0° N, 179.0° W');
});
