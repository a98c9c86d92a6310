-- Health of a VisionModel for Argo CD (docs/gitops/README.md).
local health = {status = "Progressing", message = "the operator has not looked at this version yet"}
local status = obj.status
if status == nil or status.conditions == nil or status.observedGeneration ~= obj.metadata.generation then
  return health
end
local conditions = {}
for _, condition in ipairs(status.conditions) do
  conditions[condition.type] = condition
end
local function holds(kind)
  return conditions[kind] ~= nil and conditions[kind].status == "True"
end
if conditions.Ready ~= nil then
  health.message = conditions.Ready.reason .. ": " .. conditions.Ready.message
end
if holds("Reconciling") then
  health.status = "Progressing"
elseif holds("Stalled") then
  health.status = "Degraded"
elseif holds("Ready") then
  health.status = "Healthy"
end
return health
