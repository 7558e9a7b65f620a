import assert from 'node:assert/strict';
import {test} from 'node:test';
import {boxOfCorners, polygonOfCorners, squareKilometres} from '../src/map/area.ts';
import {boxPolygon} from '../src/map/shapes.ts';

test('a box may be drawn from any corner', () => {
    assert.deepEqual(boxOfCorners([25.5, 60], [24.25, 61]), [24.25, 60, 25.5, 61]);
    assert.deepEqual(boxOfCorners([24.25, 61], [25.5, 60]), [24.25, 60, 25.5, 61]);
});

test('a box across the antimeridian has its western edge in the east', () => {
    assert.deepEqual(boxOfCorners([179, -5], [181.5, 5]), [179, -5, -178.5, 5]);
    assert.deepEqual(boxOfCorners([-181, -5], [-178.5, 5]), [179, -5, -178.5, 5]);
});

test('a box on another copy of the Earth is moved to the first one', () => {
    assert.deepEqual(boxOfCorners([370, 0], [372, 1]), [10, 0, 12, 1]);
});

test('a box around the Earth has all longitudes, and stays on the Earth', () => {
    assert.deepEqual(boxOfCorners([-300, -91], [300, 95]), [-180, -90, 180, 90]);
});

test('a polygon is closed, and stays in one piece across the antimeridian', () => {
    assert.deepEqual(polygonOfCorners([[539, 0], [542, 0], [540, 3]]), {
        type: 'Polygon',
        coordinates: [[[179, 0], [182, 0], [180, 3], [179, 0]]],
    });
});

test('areas are those of a sphere of 6371 km', () => {
    // An octant is an eighth of 4 pi r².
    const octant = (4 * Math.PI * 6371 ** 2) / 8;
    assert.ok(Math.abs(squareKilometres(boxPolygon([0, 0, 90, 90])) / octant - 1) < 1e-9);
    assert.ok(Math.abs(squareKilometres(boxPolygon([170, -1, -170, 1])) / squareKilometres(boxPolygon([0, -1, 20, 1])) - 1) < 1e-9);
});
