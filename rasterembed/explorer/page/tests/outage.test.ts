import assert from 'node:assert/strict';
import {test} from 'node:test';
import {ApiProblem} from '../src/api.ts';
import {IDLE, answer, outage, store, untoldOutage, view, viewKey} from '../src/state.ts';

const refuses = new ApiProblem('store-refused', 'The store refuses', 502, 'The keys are wrong.');

test('an outage is told once: by the part that could not be loaded, or above the map', () => {
    outage.value = refuses.message;
    store.value = {state: 'failed', problem: refuses};
    assert.equal(untoldOutage.value, null);
    // An open view hides the list of the store with its problem.
    viewKey.value = {kind: 'datasets', id: 'town'};
    assert.equal(untoldOutage.value, refuses.message);
    view.value = {state: 'failed', problem: refuses};
    assert.equal(untoldOutage.value, null);
    view.value = IDLE;
    answer.value = {state: 'failed', problem: new ApiProblem('wrong-request', 'Wrong', 422, 'No such tile.')};
    assert.equal(untoldOutage.value, refuses.message);
    answer.value = {state: 'failed', problem: refuses};
    assert.equal(untoldOutage.value, null);
});
