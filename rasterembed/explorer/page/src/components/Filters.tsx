import type {Pick, ViewDetails} from '../api.ts';
import {activeFilters, canPick, clearFilters, datesText} from '../filters.ts';
import {datesOf} from '../dates.ts';
import {percent} from '../format.ts';
import {PICK_TEXTS} from '../page_words.ts';
import {setWhere} from '../search_actions.ts';
import {where} from '../state.ts';
import {AreaFilter} from './AreaFilter.tsx';
import {RangeSlider} from './RangeSlider.tsx';
import {Section} from './Section.tsx';
import {Slider} from './Slider.tsx';

const PICKS: {value: Pick; text: string}[] = (['all', 'latest', 'clearest'] as const).map((value) => ({
    value,
    text: PICK_TEXTS[value],
}));

/** The filters of the answer. Dates, validity, clouds and the pick hold for the coloured tiles on the map too. */
export function Filters({view}: {view: ViewDetails}) {
    const count = activeFilters(where.value).length;
    const clear = (
        <button type="button" class="button quiet small" onClick={clearFilters}>
            Clear {count}
        </button>
    );
    const {minValid, maxCloud, pick} = where.value;
    const several = view.kind === 'collections';
    return (
        <Section title="Filters" aside={count > 0 ? clear : undefined}>
            {view.on_earth && <AreaFilter />}
            <DatesFilter view={view} />
            <Slider
                label="Valid pixels"
                min={0}
                max={100}
                step={5}
                value={Math.round(100 * (minValid ?? 0))}
                text={minValid === null ? 'any share' : `at least ${percent(minValid)}`}
                onInput={(value) => setWhere({minValid: value === 0 ? null : value / 100})}
            />
            {several && (
                <Slider
                    label="Clouds"
                    min={0}
                    max={101}
                    step={1}
                    value={maxCloud ?? 101}
                    text={maxCloud === null ? 'any, also unknown' : `at most ${maxCloud} %`}
                    onInput={(value) => setWhere({maxCloud: value > 100 ? null : value})}
                />
            )}
            {canPick(view) && (
                <label class="field">
                    <span class="label">Where several scenes show a tile</span>
                    <select
                        class="select"
                        value={pick ?? 'all'}
                        onChange={(event) => {
                            const chosen = PICKS.find(({value}) => value === event.currentTarget.value)?.value ?? 'all';
                            setWhere({pick: chosen === 'all' ? null : chosen});
                        }}
                    >
                        {PICKS.map(({value, text}) => (
                            <option key={value} value={value}>
                                {text}
                            </option>
                        ))}
                    </select>
                </label>
            )}
        </Section>
    );
}

function DatesFilter({view}: {view: ViewDetails}) {
    const dates = datesOf(view);
    if (dates.length < 2) return null;
    const {since, until} = where.value;
    const last = dates.length - 1;
    const from =
        since === null
            ? 0
            : Math.max(
                  0,
                  dates.findIndex(({date}) => date >= since),
              );
    const to =
        until === null
            ? last
            : Math.max(
                  from,
                  dates.findLastIndex(({date}) => date <= until),
              );
    return (
        <div class="field">
            <span class="label filter-dates">
                Dates <output>{datesText(since, until)}</output>
            </span>
            <RangeSlider
                label="Dates"
                lowLabel="First date"
                highLabel="Last date"
                max={last}
                low={from}
                high={to}
                text={(place) => dates[place]?.date ?? ''}
                onChange={(low, high) =>
                    setWhere({
                        since: low === 0 ? null : (dates[low]?.date ?? null),
                        until: high === last ? null : (dates[high]?.date ?? null),
                    })
                }
            />
        </div>
    );
}
