import {hasQuery, openView} from '../state.ts';
import {clearQuery} from '../search_actions.ts';
import {Filters} from './Filters.tsx';
import {HeatSwitch} from './HeatSwitch.tsx';
import {QueryChips} from './QueryChips.tsx';
import {QueryInput} from './QueryInput.tsx';
import {Section} from './Section.tsx';
import './SearchPanel.css';

/** Everything that a person can ask of the open view: the examples of the query, and the filters of the answer. */
export function SearchPanel() {
    const view = openView.value;
    if (view === null) return null;
    const clear = (
        <button type="button" class="button quiet small" onClick={clearQuery}>
            Clear
        </button>
    );
    return (
        <>
            <Section title="Search" aside={hasQuery.value ? clear : undefined}>
                {view.searchable ? <QueryInput /> : <p class="muted">This view cannot be searched.</p>}
                <QueryChips />
                {view.searchable && <HeatSwitch />}
            </Section>
            <Filters view={view} />
        </>
    );
}
