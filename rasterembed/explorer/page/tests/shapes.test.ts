import assert from 'node:assert/strict';
import {test} from 'node:test';
import {boxArea, boxCentre, boxPolygon, centreOfSmall, coveringBox, fittingZoom} from '../src/map/shapes.ts';
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

test('the covering box is the narrowest one, also across the antimeridian', () => {
    assert.equal(coveringBox([]), null);
    assert.deepEqual(coveringBox([[24, 60, 25, 61], [10, 45, 12, 47]]), [10, 45, 25, 61]);
    // Fiji and Samoa lie on both sides of the antimeridian.
    assert.deepEqual(coveringBox([[170, -20, 175, -10], [-178, -15, -170, -5]]), [170, -20, -170, -5]);
    assert.deepEqual(coveringBox([[179, -1, -179, 1], [175, 2, 176, 3]]), [175, -1, -179, 3]);
    assert.deepEqual(coveringBox([[179, -1, -179, 1], [-170, 2, -160, 3]]), [179, -1, -160, 3]);
    assert.deepEqual(coveringBox([[179, -1, -179, 1]]), [179, -1, -179, 1]);
    // A place in Finland and one in Fiji: the way over Asia is shorter than that over America.
    assert.deepEqual(coveringBox([[24, 60, 25, 61], [177, -19, -179, -16]]), [24, -19, -179, 61]);
});

test('boxes around the whole Earth leave no gap', () => {
    assert.deepEqual(coveringBox([[-180, -90, 180, 90], [24, 60, 25, 61]]), [-180, -90, 180, 90]);
    assert.deepEqual(coveringBox([[-180, -10, 0, 10], [0, -20, 180, 0]]), [-180, -20, 180, 10]);
});

test('only a box that is small on the Earth has a dot', () => {
    assert.equal(centreOfSmall([-180, -90, 180, 90]), null);
    assert.equal(centreOfSmall([-180, 62, 180, 90]), null);
    assert.equal(centreOfSmall([175, -1, -170, 1]), null);
    assert.deepEqual(centreOfSmall([24, 60, 25, 61])?.coordinates, [24.5, 60.5]);
    assert.deepEqual(centreOfSmall([179, -1, -179, 1])?.coordinates, [180, 0]);
    assert.equal(boxArea([179, -1, -179, 1]), 4);
});
