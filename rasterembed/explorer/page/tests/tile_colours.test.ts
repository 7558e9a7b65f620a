import assert from 'node:assert/strict';
import {test} from 'node:test';
import {asHtml} from '../src/map/raster_layers.ts';
import {colourParameters} from '../src/tile_colours.ts';

test('a choice of colours has only the parameters that have an effect', () => {
    assert.deepEqual(colourParameters('cluster', 'ab', 5), {colour: 'cluster', classes: 5, similarity: null});
    assert.deepEqual(colourParameters('similarity', 'ab', 5), {colour: 'similarity', classes: null, similarity: 'ab'});
    assert.deepEqual(colourParameters('pca', 'ab', 5), {colour: 'pca', classes: null, similarity: null});
});

test('the attribution of a base map is text, also if it looks like HTML', () => {
    assert.equal(asHtml('© <b onclick="x()">A</b> & \'B\''), '© &lt;b onclick=&quot;x()&quot;&gt;A&lt;/b&gt; &amp; &#39;B&#39;');
});
